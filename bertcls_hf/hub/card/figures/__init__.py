"""Pictures of a run, one file per kind: data in, a PNG file and its description out."""
