"""Pages with values in them: sample rows, a look-up, snippets. To htmx each answers the part that a page shows."""
