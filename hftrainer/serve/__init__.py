"""A web page to type into, and an API to build on: `hftrainer serve`."""
