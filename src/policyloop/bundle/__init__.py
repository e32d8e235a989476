"""The deployable artefact: a directory with a manifest, a network and its normalisation."""
