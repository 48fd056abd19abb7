"""The version of Penstock. Every distribution, the command and the API take it from here."""

VERSION = "0.1.0"
