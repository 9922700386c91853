"""The Dask scheduler's extension: hold, bind, report, fence. No policy; the only code that touches Dask's internals."""
