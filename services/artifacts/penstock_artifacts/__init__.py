"""The artifacts service: presigned locations of artifacts, previews, retention and garbage collection."""
