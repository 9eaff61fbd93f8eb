"""Reading and writing the file formats of scans."""
