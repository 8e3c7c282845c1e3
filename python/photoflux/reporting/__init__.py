"""Reports: HTML pages, tables, figures and their French; a run's scores and figures are finished here."""
