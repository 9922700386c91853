"""The ledger: append only, hash chained, one durable commit for each plan before its instructions are sent."""
