"""The pages of the site, and the code that stands beside them."""
