"""UDP: one connection for each local mapping, and in it a bounded memory of remote destinations."""
