// The controller's side of the bridge through a Unix socket or TCP on this machine: one state out, one reply in.
//
// A request is a little-endian u32 n and n float32 (a state), a reply the same (targets, rad); n = 0 means: no command,
// damp. Nothing here blocks, allocates, or throws. Where you have the choice, use shared memory.
#ifndef POLICYLOOP_FRAMES_HPP
#define POLICYLOOP_FRAMES_HPP

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>

#include "policyloop_bridge.hpp"

namespace policyloop {

class FrameClient {
 public:
  enum class Reply { waiting, targets, damp, closed };

  static std::optional<FrameClient> connect_unix(const char* path, std::uint32_t states, std::uint32_t targets,
                                                 Error& error) noexcept {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (std::strlen(path) >= sizeof(address.sun_path)) {
      error = Error::address;
      return std::nullopt;
    }
    std::memcpy(address.sun_path, path, std::strlen(path));
    return connect(reinterpret_cast<const sockaddr*>(&address), sizeof(address), states, targets, error);
  }

  // To 127.0.0.1: a frame carries no authentication, so it does not leave the machine.
  static std::optional<FrameClient> connect_tcp(std::uint16_t port, std::uint32_t states, std::uint32_t targets,
                                                Error& error) noexcept {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(reinterpret_cast<const sockaddr*>(&address), sizeof(address), states, targets, error);
  }

  FrameClient(const FrameClient&) = delete;
  FrameClient& operator=(const FrameClient&) = delete;
  FrameClient(FrameClient&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), states_(other.states_), targets_(other.targets_),
        outstanding_(other.outstanding_), out_(other.out_), out_at_(other.out_at_), in_(other.in_),
        in_at_(other.in_at_) {}
  FrameClient& operator=(FrameClient&&) = delete;
  ~FrameClient() { close(); }

  // Ask; false while the last question is not answered yet, or the connection is closed.
  bool send(const float* states) noexcept {
    if (fd_ < 0 || outstanding_) return false;
    std::memcpy(out_.data(), &states_, 4);
    std::memcpy(out_.data() + 4, states, std::size_t{4} * states_);
    out_at_ = 0;
    in_at_ = 0;
    outstanding_ = true;
    return flush();
  }

  // Look for the answer; `targets` is written only if there are some.
  Reply receive(float* targets) noexcept {
    if (fd_ < 0 || !flush()) return Reply::closed;
    if (!outstanding_) return Reply::waiting;
    while (in_at_ < expected()) {
      const ssize_t got = ::recv(fd_, in_.data() + in_at_, expected() - in_at_, MSG_DONTWAIT);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Reply::waiting;
      if (got <= 0) return closed();
      in_at_ += static_cast<std::size_t>(got);
      if (in_at_ >= 4 && count() != 0 && count() != targets_) return closed();
    }
    outstanding_ = false;
    if (count() == 0) return Reply::damp;
    std::memcpy(targets, in_.data() + 4, std::size_t{4} * targets_);
    return Reply::targets;
  }

  bool open() const noexcept { return fd_ >= 0; }

  void close() noexcept {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  using Buffer = std::array<unsigned char, 4 + 4 * kMostFloats>;

  FrameClient(int fd, std::uint32_t states, std::uint32_t targets) noexcept
      : fd_(fd), states_(states), targets_(targets) {}

  static std::optional<FrameClient> connect(const sockaddr* address, socklen_t size, std::uint32_t states,
                                            std::uint32_t targets, Error& error) noexcept {
    error = Error::wrong_size;
    if (states < 1 || states > kMostFloats || targets < 1 || targets > kMostFloats) return std::nullopt;
    error = Error::refused;
    const int fd = ::socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return std::nullopt;
    const int on = 1;
    if (address->sa_family == AF_INET) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (::connect(fd, address, size) != 0 && errno != EINPROGRESS) {
      ::close(fd);
      return std::nullopt;
    }
    error = Error::none;
    return FrameClient(fd, states, targets);
  }

  bool flush() noexcept {
    const std::size_t size = 4 + std::size_t{4} * states_;
    while (outstanding_ && out_at_ < size) {
      const ssize_t sent = ::send(fd_, out_.data() + out_at_, size - out_at_, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return true;
      if (sent <= 0) {
        close();
        return false;
      }
      out_at_ += static_cast<std::size_t>(sent);
    }
    return true;
  }

  std::uint32_t count() const noexcept {
    std::uint32_t n = 0;
    std::memcpy(&n, in_.data(), 4);
    return n;
  }

  std::size_t expected() const noexcept { return in_at_ < 4 ? 4 : 4 + std::size_t{4} * count(); }

  Reply closed() noexcept {
    close();
    return Reply::closed;
  }

  int fd_;
  std::uint32_t states_;
  std::uint32_t targets_;
  bool outstanding_ = false;
  Buffer out_{};
  std::size_t out_at_ = 0;
  Buffer in_{};
  std::size_t in_at_ = 0;
};

}  // namespace policyloop

#endif  // POLICYLOOP_FRAMES_HPP
