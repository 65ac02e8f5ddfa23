"""Prints what the ADBC Flight SQL driver sees of a server, a line a fact. Argument: the URI."""

import datetime
import decimal
import sys

import adbc_driver_flightsql.dbapi as flight
import pyarrow


def say(what, value):
    print(f"{what}: {value}")


def listings(connection):
    objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    for catalog in objects:
        for schema in catalog["catalog_db_schemas"]:
            for table in schema["db_schema_tables"]:
                columns = ", ".join(column["column_name"] for column in table["table_columns"])
                say("object", f"{catalog['catalog_name']}.{schema['db_schema_name']}.{table['table_name']} ({columns})")
    say("table types", connection.adbc_get_table_types())
    info = connection.adbc_get_info()
    say("vendor", info["vendor_name"])
    for field in connection.adbc_get_table_schema("sales"):
        say("field", f"{field.name} {field.type} {field.nullable}")


def queries(connection):
    with connection.cursor() as cursor:
        cursor.execute("select * from sales order by id")
        table = cursor.fetch_arrow_table()
        for field in table.schema:
            say("column", f"{field.name} {field.type}")
        for row in table.to_pylist():
            say("row", row)
        cursor.execute("select id from sales where id = ? and customer <> 'who?'", parameters=(2,))
        say("parameter", cursor.fetchall())
        cursor.execute(
            "select id from sales where amount > $1 and day >= $2",
            parameters=(decimal.Decimal("12.00"), datetime.date(2018, 8, 31)),
        )
        say("typed parameters", cursor.fetchall())
        rows = pyarrow.record_batch({"0": [3, 1]})
        cursor.execute("select id, cast(units as bigint) as units from sales where id = ?", parameters=rows)
        say("rows of parameters", cursor.fetchall())
        cursor.execute("select n, pad from many")
        table = cursor.fetch_arrow_table()
        say("many", f"{table.num_rows} {pyarrow.compute.sum(table['n'])}")
        say("schema only", cursor.adbc_execute_schema("select day, sum(amount) as total from sales group by day"))
        handle_schema = cursor.adbc_prepare("select * from sales where id = ?")
        say("parameter schema", handle_schema)


def errors(connection):
    with connection.cursor() as cursor:
        try:
            cursor.executemany("select id from sales where id = ?", [(1,), (3,)])
        except flight.Error as error:
            say("executemany", error)
    for sql in ["select * from nowhere", "selec", "select nothing from sales", "drop table sales", "select 1 / 0", "select ?"]:
        with connection.cursor() as cursor:
            try:
                cursor.execute(sql)
                cursor.fetchall()
                say("error", f"none for {sql}")
            except flight.Error as error:
                state = str(error).partition("SQLSTATE ")[2][:5]
                say("error", f"{type(error).__name__} {state} for {sql}")


def cancelled(connection):
    cursor = connection.cursor()
    cursor.execute("select a.n from many a cross join many b")
    reader = cursor.fetch_record_batch()
    reader.read_next_batch()
    cursor.adbc_cancel()
    try:
        for _ in reader:
            pass
        say("cancel", "ignored")
    except Exception as error:
        say("cancel", type(error).__name__)


def main(uri):
    import pyarrow.compute  # noqa: F401

    with flight.connect(uri, autocommit=True) as connection:
        listings(connection)
        queries(connection)
        errors(connection)
        cancelled(connection)
    with flight.connect(uri, db_kwargs={"username": "ann", "password": "any"}, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("select count(*) from sales")
            say("with user", cursor.fetchall())


main(sys.argv[1])
