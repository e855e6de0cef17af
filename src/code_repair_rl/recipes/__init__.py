"""A whole run in one readable YAML file, its typed schema, composed and overridden with Hydra."""
