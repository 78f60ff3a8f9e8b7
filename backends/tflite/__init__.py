"""TFLite files, for LiteRT on phones and small computers."""
