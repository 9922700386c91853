"""One lock for a worker's threads that plan tables with Dask.

Dask plans a table's graph by cached properties, whose locks Python 3.11 shares among all objects of a class: two
threads that plan at once, in another order, wait for each other for ever. The lock stands in a module of its own, since
a task's function may travel by value, and a lock cannot.
"""

from __future__ import annotations

import threading

#: held while a table's graph is built and handed in, never while it is computed
one_at_a_time = threading.Lock()
