"""What tests and benches share: processes that are ended, clusters, servers, an `orc up` of its own, waiting."""
