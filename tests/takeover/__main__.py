"""Write the plans of all connectors."""

from tests.takeover import plans

for file, text in plans():
    file.write_text(text)
