"""The version of this package, also where it runs without being installed."""

VERSION = "0.2.0"
