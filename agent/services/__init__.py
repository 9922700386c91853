"""`orc up` and `orc down`: the processes of a local ORC, their owner and their end."""
