"""HTTP, shared by the routes of all features: bodies, problems, streams, downloads, the guard in front of them."""
