"""The live web page: what robots see and do, what the learner makes of it, which versions there are."""
