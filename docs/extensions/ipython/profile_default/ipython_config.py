"""Settings of the kernels that run the blocks of the site."""

c = get_config()
c.InlineBackend.figure_formats = {"svg"}
c.HistoryManager.enabled = False
# The kernel tells programs to print colors; a page shows plain text.
c.InteractiveShellApp.exec_lines = ["import os; os.environ.pop('FORCE_COLOR', None); del os"]
