"""What tests and benches share: processes that are ended, clusters, real servers, an `orc up` of its own, and waiting."""
