"""Settings of the kernels that run the blocks of the site."""

c = get_config()
c.InlineBackend.figure_formats = {"svg"}
c.HistoryManager.enabled = False
