"""A knowledge graph over Bolt: the embedded server, or a Neo4j of the user's."""
