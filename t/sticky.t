#!/usr/bin/env perl

# Tests for sticky sessions of nginx 1.29.6 and newer on servers that drain,
# leave, come back and move, under each balancer: who is bound to a server stays
# with it while it drains, and nobody new gets there.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy sticky upstream_zone upstream_keepalive
	upstream_least_conn upstream_hash upstream_random
/);

my %METHODS = (
	rr => '', least => 'least_conn;', hash => 'hash $request_id;',
	ring => 'hash $request_id consistent;', random => 'random;',
	two => 'random two;',
	($t->has_module_built('upstream_least_time')
		? (time => 'least_time header inflight;') : ()),
);
my @METHODS = sort keys %METHODS;

$t->plan(@METHODS * 22 + 4 + 1);

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%UPSTREAMS%%

    # What the cookie says of a server is the operator's.
    upstream named {
        zone named 128k;
        sticky cookie route;
        server 127.0.0.1:8081 route=one;
        server 127.0.0.1:8082 route=two;
    }

    server {
        listen 127.0.0.1:8080 reuseport;

        %%KEEPALIVE%%

        %%CONTROL%%

        %%BY_NAME%%
    }
}
CONF
	map { "upstream $_ { zone $_ 128k; $METHODS{$_} sticky cookie route; "
		. join(' ', map { "server 127.0.0.1:808$_;" } 1 .. 3)
		. " keepalive 8; }\n" } @METHODS);

$t->backend("127.0.0.1:808$_") for 1 .. 4;
$t->run();
$t->leak_keys('/status', 8080, pages => { map { $_ => 1 } @METHODS });

# Replies that set more than one cookie.
my $twice = 0;

sessions($_) for @METHODS;
named();
is($twice, 0, 'one cookie in a reply at most');

sub act ($name, $args) {
	my $r = control("/control?upstream=$name&$args");
	die "$name: $args: " . $r->told() . "\n"
		if $r->status() != 200;
}

# Who answers, and the cookie that is set.
sub ask ($name, $cookie = undef) {
	my $r = http_get("/u/$name",
		headers => { $cookie ? (Cookie => $cookie) : () });
	my @set = @{ $r->headers()->{'set-cookie'} // [] };

	$twice++ if @set > 1;
	return ($r->status() == 200 ? $r->body() : $r->status(),
		@set ? $set[0] =~ s/;.*//r : undef);
}

# A session with this server; with any other, if it is undefined.
sub bind_to ($name, $server) {
	for (1 .. 400) {
		my ($who, $cookie) = ask($name);
		return ($cookie, $who) if $who eq $server;
	}
	die "$name: $server has no requests\n";
}

# All servers that answer with the cookie, in each worker.
sub with ($name, $cookie) {
	my %who = map { (ask($name, $cookie))[0] => 1 } 1 .. 16;
	return join ' ', sort keys %who;
}

# All servers that new clients get.
sub without ($name, $n = 90) {
	my %who = map { (ask($name))[0] => 1 } 1 .. $n;
	return join ' ', sort keys %who;
}

sub sessions ($name) {
	my %cookie = map { $_ => (bind_to($name, $_))[0] } 8081 .. 8083;
	is(scalar keys %{ { reverse %cookie } }, 3, "$name: a cookie for each server");
	is(join(' ', map { with($name, $cookie{$_}) } 8081 .. 8083), '8081 8082 8083',
		"$name: sessions stay");
	is((ask($name, $cookie{8081}))[1] // $cookie{8081}, $cookie{8081},
		"$name: with the same cookie");

	act($name, 'server=127.0.0.1:8081&drain=');
	is(with($name, $cookie{8081}), '8081', "$name: draining: sessions stay");
	is(without($name), '8082 8083', "$name: draining: nobody new");
	is(with($name, $cookie{8082}), '8082', "$name: draining: others stay, too");

	# A list that changes is no reason to leave.
	act($name, 'add=&server=127.0.0.1:8084');
	is(with($name, $cookie{8081}), '8081', "$name: draining, one more: sessions stay");
	is(without($name), '8082 8083 8084', "$name: draining, one more: nobody new");
	act($name, 'server=127.0.0.1:8081&weight=5');
	is(with($name, $cookie{8081}), '8081', "$name: draining, heavier: sessions stay");
	act($name, 'server=127.0.0.1:8081&weight=1');
	act($name, 'remove=&server=127.0.0.1:8084');

	act($name, 'server=127.0.0.1:8081&up=');
	is(with($name, $cookie{8081}), '8081', "$name: up again: sessions stay");
	like(without($name), qr/8081/, "$name: up again: new ones");

	act($name, 'server=127.0.0.1:8081&down=');
	my ($who, $new) = ask($name, $cookie{8081});
	like($who, qr/\A808[23]\z/, "$name: down: sessions leave");
	is($new, $cookie{$who}, "$name: down: for another one, with its cookie");
	is(with($name, $new), $who, "$name: down: and stay there");
	act($name, 'server=127.0.0.1:8081&up=');

	# Drained, removed, and there again under the same address.
	act($name, 'server=127.0.0.1:8081&drain=');
	act($name, 'remove=&server=127.0.0.1:8081');
	($who, $new) = ask($name, $cookie{8081});
	like($who, qr/\A808[23]\z/, "$name: removed: sessions leave");
	is($new, $cookie{$who}, "$name: removed: for another one, with its cookie");
	act($name, 'add=&server=127.0.0.1:8081');
	is(with($name, $new), $who, "$name: added again: who left stays away");
	is(with($name, $cookie{8081}), '8081', "$name: added again: its cookie is good");
	like(without($name), qr/8081/, "$name: added again: new ones");

	# Another address is another server.
	my ($peer) = grep { $_->{name} eq '127.0.0.1:' . port(8083) }
		@{ get_json("/status?upstream=$name")->{upstreams}{$name}{peers} };
	act($name, "id=$peer->{id}&server=127.0.0.1:8084");
	unlike(with($name, $cookie{8083}), qr/8083/, "$name: moved: not to the old address");
	my ($moved) = bind_to($name, 8084);
	isnt($moved, $cookie{8083}, "$name: moved: another cookie");
	is(with($name, $moved), '8084', "$name: moved: sessions with it stay");
}

# A server with a name of its own takes it along.
sub named {
	is((bind_to('named', 8081))[0], 'route=one', 'named: the cookie');
	act('named', 'id=0&server=127.0.0.1:8083');
	is(with('named', 'route=one'), '8083', 'named: moved: sessions follow');
	act('named', 'server=127.0.0.1:8083&drain=');
	is(with('named', 'route=one'), '8083', 'named: draining: sessions stay');
	is(without('named'), '8082', 'named: draining: nobody new');
}
