"""How good motions are: arithmetic on arrays, with the protocol in the signature."""
