#!/usr/bin/env perl

# Tests for TLS sessions of servers that come, move and leave thousands of
# times: each is used by its own server only, and its memory comes back.
#
# TEST_NGINX_LONG: 10,000 cycles, not 300.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $long = $ENV{TEST_NGINX_LONG};
my $timeout = $long ? 1800 : 120;

my $t = Test::Nginx->new(timeout => $timeout)->has(qw/
	module http proxy ssl upstream_zone upstream_least_conn upstream_hash
	upstream_random
/);

plan(skip_all => 'no openssl') if system('openssl version >/dev/null 2>&1');

my %METHODS = (
	rr => '', least => 'least_conn;', hash => 'hash $request_id;',
	ring => 'hash $request_id consistent;', random => 'random;',
);
my @METHODS = sort keys %METHODS;

# For each method, and those after which the memory in use is what it stays.
my $cycles = ($long ? 10_000 : 300) / @METHODS;
use constant WARM => 10;

$t->plan(6);

# The server of the file is there for nginx to start with.
$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;

    upstream_capacity 8;

    %%UPSTREAMS%%

    server {
        listen 127.0.0.1:8080;

        %%CONTROL%%

        location ~ ^/u/(?<name>\w+)$ {
            # Newer nginx would keep the connection, and need no session.
            proxy_http_version 1.0;
            proxy_set_header Connection close;
            proxy_pass https://$name;
        }
    }
}
CONF
	map { "upstream $_ { zone $_ 64k; $METHODS{$_} server 127.0.0.1:8089 down; }\n" }
		@METHODS);

# Servers that would take each other's sessions: that of another shows.
my $backends = Test::Nginx->new(timeout => $timeout);
$backends->write_file_expand('nginx.conf', <<'CONF', LISTEN => join '', map {
%%TEST_GLOBALS%%
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;

    server {
%%LISTEN%%
        ssl_certificate %%TESTDIR%%/server.crt;
        ssl_certificate_key %%TESTDIR%%/server.key;
        ssl_protocols TLSv1.2;
        ssl_session_cache shared:sessions:2m;
        ssl_session_tickets off;

        location / { return 200 "$server_addr $ssl_session_reused"; }
    }
}
CONF
	"        listen 127.0.0.$_:8081 ssl;\n" } 1 .. 7);

my $dir = $backends->testdir();
system('openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 '
	. '-nodes -days 2 -subj /CN=localhost '
	. "-keyout $dir/server.key -out $dir/server.crt >$dir/openssl.out 2>&1") == 0
	or die "openssl: ", $backends->read_file('openssl.out');

$backends->run();
$t->run();
# Sessions have their pages in the zone.
$t->leak_keys('/status', port(8080), pages => { map { $_ => 3 } @METHODS });

my %sum = map { $_ => 0 } qw/reused own stolen failed/;
my (%base, @refused, @leaks);
my $began = now();

for my $n (1 .. $cycles) {
	cycle($_, $n) for @METHODS;
	%base = memory() if $n == WARM;
}

my $took = now() - $began;
my %end = memory();
for my $name (@METHODS) {
	push @leaks, "$name: $base{$name} pages in use, then $end{$name}"
		if $end{$name} > $base{$name};
}

($long ? \&diag : \&note)->(sprintf '%d cycles in %.0f s; %d sessions made, '
	. '%d used again; pages in use: %s', $cycles * @METHODS, $took, $sum{own},
	$sum{reused}, join ', ', map { "$_ $base{$_}, then $end{$_}" } @METHODS);

is_deeply(\@refused, [], 'each change was made');
is($sum{failed}, 0, 'each request was answered by its server');
is($sum{stolen}, 0, 'no session of another server');
is($sum{own}, 2 * $cycles * @METHODS, 'each server begins with its own');
is($sum{reused}, 2 * $cycles * @METHODS, 'and keeps it');
is_deeply(\@leaks, [], 'their memory comes back');

sub act ($name, $args) {
	my $r = control("/control?upstream=$name&$args");
	push @refused, "$name: $args: " . $r->told()
		if $r->status() != 200 && @refused < 20;
	return $r;
}

# Two requests to a server, which no session was kept for.
sub new_server ($name, $server) {
	for my $known (0, 1) {
		my ($who, $reused) = split / /, http_get("/u/$name")->body();

		$sum{failed}++ if $who ne $server;
		$sum{$known ? 'reused' : 'stolen'}++ if ($reused // '') eq 'r';
		$sum{own}++ if !$known && ($reused // '') eq '.';
	}
}

sub cycle ($name, $n) {
	my ($one, $two) = map { '127.0.0.' . (1 + ($n + $_) % 7) } 0, 3;
	my $id = act($name, "add=&server=$one:8081&format=json")->json()
		->{server}{id};

	new_server($name, $one);
	act($name, "id=$id&server=$two:8081");
	new_server($name, $two);
	act($name, "id=$id&remove=");
}

sub memory () {
	my $all = get_json('/status')->{upstreams};
	return map {
		my $pages = $all->{$_}{zone_memory}{pages};
		$_ => $pages->{total} - $pages->{free};
	} @METHODS;
}
