"""Published policies as small planners, to measure against: a snapshot in, a plan out, on the same fleet."""
