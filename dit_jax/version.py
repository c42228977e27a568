"""The version of this package, also where it runs without being installed."""

VERSION = "0.1.0"
