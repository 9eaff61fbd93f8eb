"""What every room needs: errors, settings, files, stored schemas, large arrays, the machine and its devices."""
