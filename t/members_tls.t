#!/usr/bin/env perl

# Tests for TLS sessions of servers that come, go or move: nginx keeps one for
# each server, and none is offered to another.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy ssl upstream_zone upstream_least_conn upstream_ip_hash
	upstream_hash upstream_random
/);

plan(skip_all => 'no openssl') if system('openssl version >/dev/null 2>&1');

my %METHODS = (
	rr => '', least => 'least_conn;', ip => 'ip_hash;', hash => 'hash a;',
	ring => 'hash a consistent;', random => 'random;', two => 'random two;',
);
my @METHODS = sort keys %METHODS;

$t->plan(7 * 8);

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream_capacity 2;

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
	map { "upstream $_ { zone $_ 64k; $METHODS{$_} server 127.0.0.1:8081; }\n" }
		@METHODS);

# Servers that would take each other's sessions: that of another shows.
my $backends = Test::Nginx->new();
$backends->write_file_expand('nginx.conf', <<'CONF', LISTEN => join '', map {
%%TEST_GLOBALS%%
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    server {
%%LISTEN%%
        ssl_certificate %%TESTDIR%%/server.crt;
        ssl_certificate_key %%TESTDIR%%/server.key;
        ssl_protocols TLSv1.2;
        ssl_session_cache shared:sessions:1m;
        ssl_session_tickets off;

        location / { return 200 "$server_addr $ssl_session_reused"; }
    }
}
CONF
	"        listen 127.0.0.$_:8081 ssl;\n" } 1 .. 5);

my $dir = $backends->testdir();
system('openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost '
	. "-keyout $dir/server.key -out $dir/server.crt >$dir/openssl.out 2>&1") == 0
	or die "openssl: ", $backends->read_file('openssl.out');

$backends->run();
$t->run();
# Sessions have their pages in the zone.
$t->leak_keys('/status', port(8080), pages => { map { $_ => 3 } @METHODS });

sessions($_) for @METHODS;

sub act ($name, $args) {
	my $r = control("/control?upstream=$name&$args");
	die "$name: $args: " . $r->told() . "\n"
		if $r->status() != 200;
}

# Who answers three times, and with which session: "r" for one that is known.
sub answers ($name) {
	my @answers = map { http_get("/u/$name")->body() } 1 .. 3;
	my ($server) = split / /, $answers[0];
	return join ' ', $server, map { s/\A\Q$server\E //r } @answers;
}

sub free ($name) {
	return get_json("/status?upstream=$name")->{upstreams}{$name}{zone_memory}
		{pages}{free};
}

sub sessions ($name) {
	is(answers($name), '127.0.0.1 . r r', "$name: a session is kept");
	act($name, 'id=0&server=127.0.0.2:8081');
	is(answers($name), '127.0.0.2 . r r', "$name: not after a move");
	act($name, 'id=0&server=127.0.0.3:8081');
	is(answers($name), '127.0.0.3 . r r', "$name: nor after another");
	act($name, 'id=0&server=127.0.0.1:8081');
	is(answers($name), '127.0.0.1 . r r', "$name: nor where it was");

	act($name, 'remove=&id=0');
	act($name, 'add=&server=127.0.0.4:8081');
	is(answers($name), '127.0.0.4 . r r', "$name: nor after one that left");
	act($name, 'remove=&id=1');
	act($name, 'add=&server=127.0.0.4:8081');
	is(answers($name), '127.0.0.4 . r r', "$name: nor if it is there again");

	# Memory of sessions comes back.
	my $id = 2;
	my $free = free($name);
	for my $round (1 .. 20) {
		act($name, "id=$id&server=127.0.0." . (1 + $round % 5) . ':8081');
		http_get("/u/$name");
	}
	is(free($name), $free, "$name: sessions of those that left are freed");
	is(answers($name) =~ /\A127\.0\.0\.1 r r r\z/, 1, "$name: the last is kept");
}
