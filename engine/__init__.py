"""The feature store as a library: values, expressions, stores and the point-in-time join. Knows no Django."""
