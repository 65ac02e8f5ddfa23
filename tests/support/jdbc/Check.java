// Prints what the Flight SQL JDBC driver sees of a server, a line a fact. Argument: the JDBC URL.

import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Calendar;
import java.util.Properties;
import java.util.TimeZone;

public final class Check {
    private static final Calendar UTC = Calendar.getInstance(TimeZone.getTimeZone("UTC"));

    /** The driver's threads outlive a failure: leave them behind. */
    public static void main(String[] arguments) {
        try {
            check(arguments[0]);
            System.exit(0);
        } catch (Throwable error) {
            error.printStackTrace();
            System.exit(1);
        }
    }

    private static void check(String url) throws Exception {
        TimeZone.setDefault(TimeZone.getTimeZone("UTC"));
        try (Connection connection = DriverManager.getConnection(url, new Properties())) {
            server(connection.getMetaData());
            listings(connection.getMetaData());
            statement(connection);
            prepared(connection);
            errors(connection);
        }
        Connection inCatalog = DriverManager.getConnection(url + "&catalog=shop");
        say("with catalog", one(inCatalog, "select count(*) from sales"));
        try {
            inCatalog.close();
        } catch (SQLException error) {
            // With `catalog=` the driver closes its session, its channel, and then its session once more.
            say("close with catalog", error.getMessage());
        }
        try (Connection connection = DriverManager.getConnection(url + "&user=ann&password=any")) {
            say("with user", one(connection, "select count(*) from sales"));
        }
    }

    private static void server(DatabaseMetaData about) throws SQLException {
        say("product", about.getDatabaseProductName());
        say("read only", about.isReadOnly());
        say("quote", about.getIdentifierQuoteString());
        say("search escape", about.getSearchStringEscape());
        say("lower case", about.storesLowerCaseIdentifiers());
        say("transactions", about.supportsTransactions());
        say("group by", about.supportsGroupBy());
        say("full outer joins", about.supportsFullOuterJoins());
        say("null plus non-null", about.nullPlusNonNullIsNull());
        say("unions", about.supportsUnionAll());
        say("subqueries", about.supportsSubqueriesInExists());
        say("keywords", about.getSQLKeywords().contains("QUALIFY"));
        say("numeric functions", about.getNumericFunctions().contains("abs"));
        say("string functions", about.getStringFunctions().contains("upper"));
        say("time functions", about.getTimeDateFunctions().contains("date_trunc"));
        say("max connections", about.getMaxConnections());
        say("isolation", about.getDefaultTransactionIsolation());
        say("catalog at start", about.isCatalogAtStart());
        say("schema term", about.getSchemaTerm());
    }

    private static void listings(DatabaseMetaData about) throws SQLException {
        print("catalog", about.getCatalogs(), "TABLE_CAT");
        print("schema", about.getSchemas(), "TABLE_CATALOG", "TABLE_SCHEM");
        print("schema like m%", about.getSchemas(null, "m%"), "TABLE_SCHEM");
        print("table type", about.getTableTypes(), "TABLE_TYPE");
        print("table", about.getTables("shop", "main", "%", null), "TABLE_CAT", "TABLE_SCHEM", "TABLE_NAME", "TABLE_TYPE");
        print("table like s_les", about.getTables(null, null, "s_les", new String[] {"TABLE"}), "TABLE_NAME");
        print("table like s\\_les", about.getTables(null, null, "s\\_les", null), "TABLE_NAME");
        print("view only", about.getTables(null, null, "%", new String[] {"VIEW"}), "TABLE_NAME");
        print("table elsewhere", about.getTables("nowhere", null, "%", null), "TABLE_NAME");
        print("column", about.getColumns("shop", "main", "sales", "%"), "COLUMN_NAME", "DATA_TYPE", "TYPE_NAME",
                "COLUMN_SIZE", "DECIMAL_DIGITS", "NULLABLE", "ORDINAL_POSITION", "IS_NULLABLE");
        print("column like d%", about.getColumns(null, null, "sales", "d%"), "TABLE_NAME", "COLUMN_NAME");
        print("primary key", about.getPrimaryKeys("shop", "main", "sales"), "TABLE_NAME", "COLUMN_NAME", "KEY_SEQ", "PK_NAME");
        print("primary key of bag", about.getPrimaryKeys("shop", "main", "bag"), "COLUMN_NAME");
        print("imported key", about.getImportedKeys("shop", "main", "sales"), "FK_NAME");
        print("exported key", about.getExportedKeys("shop", "main", "sales"), "FK_NAME");
        print("cross reference", about.getCrossReference("shop", "main", "sales", "shop", "main", "bag"), "FK_NAME");
    }

    private static void statement(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement();
                ResultSet rows = statement.executeQuery("select * from sales order by id")) {
            describe(rows.getMetaData());
            while (rows.next()) {
                StringBuilder line = new StringBuilder();
                for (int i = 1; i <= rows.getMetaData().getColumnCount(); i++) {
                    line.append(i == 1 ? "" : " | ").append(rows.getString(i));
                }
                say("row", line);
                BigDecimal amount = rows.getBigDecimal("amount");
                say("decimal", amount == null ? "null " + rows.wasNull() : amount.toPlainString() + " scale " + amount.scale());
                say("date", rows.getDate("day"));
                say("wall clock", rows.getTimestamp("placed"));
                java.sql.Timestamp instant = rows.getTimestamp("paid", UTC);
                say("instant", instant == null ? null : instant.toInstant());
                say("integer", rows.getInt("units") + " " + rows.wasNull());
            }
        }
        say("many rows", one(connection, "select sum(v) from (select n as v from many)"));
        try (Statement statement = connection.createStatement();
                ResultSet rows = statement.executeQuery("select n, pad from many")) {
            long count = 0;
            long sum = 0;
            while (rows.next()) {
                count++;
                sum += rows.getLong(1);
            }
            say("streamed", count + " rows, sum " + sum);
        }
        say("no rows", one(connection, "select id from sales where id < 0"));
        try (Statement statement = connection.createStatement()) {
            say("execute", statement.execute("select 1"));
        }
    }

    private static void describe(ResultSetMetaData columns) throws SQLException {
        for (int i = 1; i <= columns.getColumnCount(); i++) {
            say("result column", columns.getColumnName(i) + " " + columns.getColumnTypeName(i) + " " + columns.getPrecision(i)
                    + " " + columns.getScale(i) + " " + columns.isNullable(i) + " " + columns.getTableName(i));
        }
    }

    private static void prepared(Connection connection) throws SQLException {
        String sql = "select id, amount from sales where id = ? and day >= ? and amount > ? and customer <> ?";
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            say("parameters", statement.getParameterMetaData().getParameterCount());
            for (long id : new long[] {1, 2}) {
                statement.setLong(1, id);
                statement.setDate(2, Date.valueOf("2018-08-30"));
                statement.setBigDecimal(3, new BigDecimal("0.01"));
                statement.setString(4, "nobody ?");
                try (ResultSet rows = statement.executeQuery()) {
                    while (rows.next()) {
                        say("prepared row", rows.getLong(1) + " " + rows.getBigDecimal(2));
                    }
                }
            }
        }
        try (PreparedStatement statement = connection.prepareStatement("select count(*) from sales where paid = ?")) {
            statement.setTimestamp(1, java.sql.Timestamp.from(java.time.Instant.parse("2018-09-01T01:30:00.250Z")));
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                say("prepared instant", rows.getLong(1));
            }
        }
    }

    private static void errors(Connection connection) {
        for (String sql : new String[] {"select * from nowhere", "select nothing from sales", "selec 1", "insert into sales values (1)",
                "drop table sales", "select 1 / 0", "select nofunction(1)"}) {
            try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
                while (rows.next()) {
                    rows.getString(1);
                }
                say("error", "none for " + sql);
            } catch (SQLException | RuntimeException error) {
                java.util.regex.Matcher state = java.util.regex.Pattern.compile("SQLSTATE (\\w{5})").matcher(all(error));
                say("error", (state.find() ? state.group(1) : "without SQLSTATE: " + all(error)) + " for " + sql);
            }
        }
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("delete from sales");
            say("error", "none for an update");
        } catch (SQLException | RuntimeException error) {
            say("error", "update " + all(error).contains("SQLSTATE 25006"));
        }
    }

    private static String all(Throwable error) {
        StringBuilder text = new StringBuilder();
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            text.append(cause.getMessage()).append('\n');
        }
        return text.toString();
    }

    private static String one(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            return rows.next() ? rows.getString(1) : "none";
        }
    }

    private static void print(String what, ResultSet rows, String... columns) throws SQLException {
        int count = 0;
        while (rows.next()) {
            StringBuilder line = new StringBuilder();
            for (String column : columns) {
                line.append(line.length() == 0 ? "" : " | ").append(rows.getString(column));
            }
            say(what, line);
            count++;
        }
        if (count == 0) {
            say(what, "-");
        }
        rows.close();
    }

    private static void say(String what, Object value) {
        System.out.println(what + ": " + value);
    }
}
