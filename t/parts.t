#!/usr/bin/env perl

# Tests for an nginx that was built without some of its parts: the module loads
# there, and controls what there is.  Any nginx will do; `make` runs this file
# on several that lack parts.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/module http proxy/);

# What an upstream says, the part that this takes, and the method that is shown.
my @KINDS = (
	[ rr => '', undef, 'round_robin' ],
	[ least => 'least_conn;', 'upstream_least_conn', 'least_conn' ],
	[ ip => 'ip_hash;', 'upstream_ip_hash', 'ip_hash' ],
	[ hash => 'hash $uri;', 'upstream_hash', 'hash' ],
	[ ring => 'hash $uri consistent;', 'upstream_hash', 'hash consistent' ],
	[ random => 'random;', 'upstream_random', 'random' ],
	[ kept => 'keepalive 4;', 'upstream_keepalive', 'round_robin' ],
	[ time => 'least_time header;', 'upstream_least_time', 'least_time' ],
	[ sticky => 'sticky cookie id;', 'upstream_sticky', 'round_robin' ],
);
my $has_zone = $t->has_module_built('upstream_zone');
my (@there, $upstreams, $locations);

for my $kind (@KINDS) {
	my ($name, $words, $part) = @$kind;
	next if defined $part && !$t->has_module_built($part);

	my $zone = $has_zone ? "zone $name 64k;" : '';
	$upstreams .= "upstream $name { $zone $words "
		. "server 127.0.0.1:8081; server 127.0.0.1:8082; }\n";
	$locations .= "location /$name { proxy_pass http://$name; }\n";
	push @there, $kind;
}

$t->plan(2 + 4 * @there + 1);

$t->write_file_expand('nginx.conf', <<'CONF',
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%UPSTREAMS%%

    server {
        listen 127.0.0.1:8080;

        %%KEEPALIVE%%

        %%CONTROL%%

        %%LOCATIONS%%
    }
}
CONF
	UPSTREAMS => $upstreams, LOCATIONS => $locations);

my %backends = map { $_ => $t->backend("127.0.0.1:$_") } 8081 .. 8083;
$t->run();
$t->leak_keys('/status') if $has_zone;

my $all = get_json('/status')->{upstreams};
is_deeply([ sort keys %$all ], [ sort map { $_->[0] } @there ],
	'all upstreams are shown');
like(http_get('/status?format=text')->body(), qr/^upstream "rr": /m, 'as text');

for my $kind (@there) {
	my ($name, undef, undef, $method) = @$kind;

	is($all->{$name}{method}, $method, "$name: method");

	if (!$has_zone) {
		is(change($name, 'server=127.0.0.1:8081&down='),
			"501 only for upstream with 'zone'", "$name: cannot be changed");
		is(servers($name), '8081 8082', "$name: both are there");
		is(failed($name), 0, "$name: serves");
		next;
	}

	change($name, 'server=127.0.0.1:8081&down=');
	change($name, 'server=127.0.0.1:8083&add=');
	is(failed($name, 8081), 0, "$name: down");
	is(servers($name), '8081 8082 8083', "$name: add");
	change($name, 'server=127.0.0.1:8081&up=');
	change($name, 'server=127.0.0.1:8082&remove=');
	is(failed($name, 8082), 0, "$name: remove");
}

$t->reload();
is(servers('rr'), '8081 8082', 'after a reload');

sub change ($name, $args) {
	my $reply = control("/control?upstream=$name&$args");
	return join ' ', $reply->status(), $reply->body() =~ /\A([^:\n]*)/;
}

# Ports of the servers that the status shows.
sub servers ($name) {
	my $peers = get_json("/status?upstream=$name")->{upstreams}{$name}{peers};
	return join ' ', sort map { $t->logical($_->{name}) =~ /(\d+)\z/ } @$peers;
}

# Requests that were not answered, or not by a server that may answer.
sub failed ($name, $gone = undef) {
	my $before = defined $gone ? $backends{$gone}->count() : 0;
	my $got = burst(uri => sub ($i) { "/$name/$i" }, n => 20);
	my $after = defined $gone ? $backends{$gone}->count() : 0;

	return $got->{failed} + $after - $before;
}
