"""The page a lead opens, reports/report.html: inputs, charts, queries to browse, template."""
