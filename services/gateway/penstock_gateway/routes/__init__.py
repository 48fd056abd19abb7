"""The routes of the HTTP API, one file a resource. They translate: HTTP in, a call of the service, HTTP out."""
