"""What every process of ORC shares on its machine: how it starts and ends, its files, its ports and its family."""
