"""What needs a Spark cluster: only its modules, and engine/pointintime/spark.py, import pyspark."""
