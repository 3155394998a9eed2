"""How fast the hub is beside the bare limit of the libraries under it, measured in one run on one machine."""
