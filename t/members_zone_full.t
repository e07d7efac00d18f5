#!/usr/bin/env perl

# Tests for memory that runs out in the zone of an upstream, where lists have
# slots the slots.  A server that finds no room is refused in words, and nothing
# else happens; one that leaves makes room.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy upstream_zone upstream_hash upstream_random
/);

my $slots = !$t->has_version('1.27.3');

my %METHODS = (rr => '', ring => 'hash $arg_key consistent;',
	random => 'random;');

$t->plan(3 * (3 * 11 + 1));

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%UPSTREAMS%%

    server {
        listen 127.0.0.1:8080 reuseport;

        %%CONTROL%%

        %%BY_NAME%%
    }
}
CONF

my $UPSTREAMS = join '',
	map { "upstream $_ { zone $_ 64k; $METHODS{$_} server 127.0.0.1:8081; }\n" }
		sort keys %METHODS;

$t->write_file_expand('nginx.conf', $CONF, UPSTREAMS => $UPSTREAMS);
$t->backend("127.0.0.1:$_") for 8081, 8082;
$t->run();

# A page of each size of memory that was in use may stay with nginx's slab.
$t->leak_keys('/status', 8080, pages => { map { $_ => 2 } keys %METHODS });

for my $name (sort keys %METHODS) {
	my @counts = map { zone($name, $_) } 1 .. 3;
	# The first round may have made pages for the first time.
	is($counts[1], $counts[2], "$name: as many fit each time");
}

sub act ($name, $args) {
	return control("/control?upstream=$name&$args");
}

sub text ($r) { return $r->told() }

sub upstream ($name) {
	return get_json("/status?upstream=$name&verbose=")->{upstreams}{$name};
}

# All that a refused change must leave as it was.
sub shown ($name) {
	my $all = upstream($name);
	return join ' ', $all->{revision}, $all->{zone_memory}{used},
		map { "$_->{id}:$_->{name}" } @{ $all->{peers} };
}

sub served ($name) {
	my $got = burst(uri => sub ($i) { "/u/$name?key=$i" }, n => 24,
		concurrency => 8);
	return $got->{failed};
}

# Adds servers until one is refused; its reply, and how many fit.
sub fill ($name) {
	my $n = 0;
	my $r;

	for my $port (1001 .. 3000) {
		$r = act($name, "add=&down=&server=127.0.0.9:$port");
		last if $r->status() != 200;
		$n++;
	}

	return ($r, $n);
}

sub empty ($name, $n) {
	my $got = burst(n => $n, concurrency => 1, uri => sub ($i) {
		return "/control?upstream=$name&remove=&server=127.0.0.9:" . ($i + 1001);
	});
	return $got->{ok};
}

sub zone ($name, $round) {
	my $mark = $t->log_mark();
	my ($r, $n) = fill($name);
	my $full = $slots
		? qr/\A500 no place left, the upstream has its @{[ $n + 1 ]} servers: raise "upstream_capacity" or the size of "zone"\z/
		: qr/\A500 no memory left in zone "$name", \d+ bytes are needed: raise the size of "zone"\z/;

	cmp_ok($n, '>', $slots ? 15 : 20, "$name, $round: many fit");
	like(text($r), $full, "$name, $round: until it is full");
	my $shown = shown($name);
	like(text(act($name, 'add=&server=127.0.0.1:8082&weight=2')), $full,
		"$name, $round: neither another one");
	is(shown($name), $shown, "$name, $round: nothing was changed");

	# A slot is kept for that.
	my $moved = text(act($name, 'id=0&server=127.0.0.1:8082'));
	like($moved, $slots ? qr/\A200 / : $full, "$name, $round: another address");
	act($name, 'id=0&server=127.0.0.1:8081') if $slots;
	is(scalar $t->grep_log(qr/ \[(?:crit|alert|emerg)\] /, $mark), 0,
		"$name, $round: nor was nginx alarmed");
	cmp_ok(scalar $t->grep_log($slots ? qr/\[error\] .*no place left, /
		: qr/\[error\] .*no memory left in zone "$name"/, $mark), '>', 0,
		"$name, $round: the log says it");

	is(act($name, 'id=0&weight=2')->status(), 200,
		"$name, $round: parameters need no room");
	is(act($name, 'remove=&server=127.0.0.9:1001')->status() . ' '
		. act($name, 'add=&server=127.0.0.9:1001&down=')->status(), '200 200',
		"$name, $round: one that leaves makes room for one");
	is(served($name), 0, "$name, $round: it serves");
	act($name, 'id=0&weight=1');
	is(empty($name, $n), $n, "$name, $round: all leave");

	return $n;
}
