"""Git repositories: refs are resolved to commits, which are fetched into shared mirrors and checked out."""
