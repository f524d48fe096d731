"""Thin routers, one file a resource."""
