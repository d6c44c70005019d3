"""Tasks on files of your own: tables, arrays and data sets of Hugging Face."""
