"""What executes a batch. A runtime is a class in a file of its own, and knows one framework.

The contract is :mod:`.base`, the table of runtimes :mod:`.registry`. Most runtimes map arrays to
arrays by way of :mod:`.arrays`. Files that begin with the name of a runtime belong to it; workers
in processes of their own are :mod:`.worker`, services :mod:`.service` and what begins so.
"""
