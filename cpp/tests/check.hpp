// The least that a test needs.
#ifndef POLICYLOOP_TESTS_CHECK_HPP
#define POLICYLOOP_TESTS_CHECK_HPP

#include <cstdio>

inline int failures = 0;

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);    \
      ++failures;                                                             \
    }                                                                         \
  } while (false)

#endif
