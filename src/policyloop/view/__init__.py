"""One recorded episode, to look at: as a page that is complete in itself, or in rerun."""
