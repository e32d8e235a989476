"""Datasets in and out. Third-party libraries are imported when a format is asked for."""
