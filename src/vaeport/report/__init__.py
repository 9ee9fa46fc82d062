"""Reports of proofs and ports: `report.json` is the record; HTML, Markdown, JUnit, annotations are made of it alone."""
