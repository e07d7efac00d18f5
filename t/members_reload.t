#!/usr/bin/env perl

# Tests for servers that came, went or moved, when nginx is reloaded: the file
# counts again, which is said once; and when workers die.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone/);

$t->plan(32);

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        zone u 64k;
        %%SERVERS%%
    }

    upstream other {
        zone other 64k;
        server 127.0.0.1:8081;
    }

    server {
        listen 127.0.0.1:8080;

        %%CONTROL%%

        %%BY_NAME%%
    }
}
CONF

configure(8081, 8082);
$t->backend("127.0.0.1:$_") for 8081 .. 8084;
$t->run();
$t->leak_keys('/status', 8080, pages => { u => 1, other => 1 });

gone();
taken_back();
into_the_file();
failed();
under_way();
workers();

sub configure (@ports) {
	$t->write_file_expand('nginx.conf', $CONF, SERVERS => join ' ',
		map { "server 127.0.0.1:$_;" } @ports);
}

# Reloads; what the log says of what was dropped.
sub reload () {
	my $mark = $t->log_mark();
	$t->reload(old_gone => 1) or die "reload failed\n";
	$t->leak_baseline();

	return join ', ', map { $t->logical($_) =~ /\[warn\].*?: upstream "(.*)/ }
		$t->grep_log(qr/the reload dropped/, $mark);
}

sub act ($args, $name = 'u') {
	my $r = control("/control?upstream=$name&$args");
	die "\"$args\": " . $r->told() . "\n"
		unless $r->status() == 200;
}

# "id:port" of each server.
sub ids ($name = 'u') {
	return join ' ', map {
		"$_->{id}:" . $t->logical($_->{name}) =~ s/.*://r
	} @{ get_json("/status?upstream=$name")->{upstreams}{$name}{peers} };
}

sub answers ($name = 'u') {
	my $got = burst(uri => "/u/$name", n => 24, concurrency => 6);
	return join ' ', ($got->{failed} ? 'failed' : ()),
		sort keys %{ $got->{by_body} };
}

sub dropped ($port, $what, $name = 'u') {
	return qq($name" server "127.0.0.1:$port": )
		. "the reload dropped run-time changes: it was $what";
}

sub gone {
	act('add=&server=127.0.0.1:8083');
	is(ids(), '0:8081 1:8082 2:8083', 'added');
	is(reload(), dropped(8083, 'added'), 'added: a warning');
	is(ids(), '0:8081 1:8082', 'added: gone');
	is(answers(), '8081 8082', 'added: does not serve');
	is(reload(), '', 'added: said once');

	act('remove=&server=127.0.0.1:8082');
	is(ids(), '0:8081', 'removed');
	is(reload(), dropped(8082, 'removed'), 'removed: a warning');
	like(ids(), qr/\A0:8081 \d+:8082\z/, 'removed: back');
	is(answers(), '8081 8082', 'removed: serves');

	act('id=0&server=127.0.0.1:8084');
	is(answers(), '8082 8084', 'moved');
	is(reload(), dropped(8081, 'removed') . ', ' . dropped(8084, 'added'),
		'moved: two warnings');
	like(ids(), qr/\A\d+:8081 \d+:8082\z/, 'moved: as in the file');
	is(answers(), '8081 8082', 'moved: serves at its old address');

	act('remove=&server=127.0.0.1:8081');
	act('remove=&server=127.0.0.1:8082');
	act('add=&server=127.0.0.1:8083', 'other');
	is(reload(), join(', ', dropped(8081, 'removed'), dropped(8082, 'removed'),
		dropped(8083, 'added', 'other')),
		'all removed, and one added elsewhere: warnings');
	is(answers() . ', ' . answers('other'), '8081 8082, 8081',
		'all are as in the file');
}

# An id is never used twice, also by a reload.
sub taken_back {
	my ($first) = ids() =~ /\A(\d+)/;

	act('add=&server=127.0.0.1:8083');
	my ($added) = ids() =~ /(\d+):8083/;
	act('remove=&server=127.0.0.1:8083');
	is(ids() =~ /8083/, '', 'added and removed');
	reload();
	act('add=&server=127.0.0.1:8083');
	my ($again) = ids() =~ /(\d+):8083/;
	cmp_ok($again, '>', $added, 'an id is not used again');
	like(ids(), qr/\A$first:8081 /, 'ids of the file stay');
	act('remove=&server=127.0.0.1:8083');
}

# What was done at run time first, and written down then.
sub into_the_file {
	act('add=&server=127.0.0.1:8083');
	my ($id) = ids() =~ /(\d+):8083/;
	configure(8081, 8082, 8083);
	is(reload(), '', 'a server that the file has now: nothing is lost');
	like(ids(), qr/ $id:8083\z/, 'a server that the file has now: its id');
	is(answers(), '8081 8082 8083', 'a server that the file has now: serves');

	act('remove=&server=127.0.0.1:8083');
	configure(8081, 8082);
	reload();
	like(ids(), qr/\A\d+:8081 \d+:8082\z/, 'one that the file has no more');
}

sub failed {
	act('add=&server=127.0.0.1:8083');
	my $before = ids();
	$t->write_file_expand('nginx.conf', $CONF, SERVERS => 'nonsense;');
	$t->allow_log(qr/\[emerg\].*nonsense/);
	ok(!$t->reload(), 'a reload that fails');
	is(ids(), $before, 'changes nothing');
	is(answers(), '8081 8082 8083', 'nor who serves');
	configure(8081, 8082);
	reload();
}

# No request is lost while servers come and go around reloads.
sub under_way {
	my $load = $t->load(uri => '/u/u', seconds => 30, concurrency => 4);

	for my $round (1 .. 3) {
		act('add=&server=127.0.0.1:8083');
		act('remove=&server=127.0.0.1:8081');
		$t->reload();
		act('add=&server=127.0.0.1:8084');
		act('remove=&server=127.0.0.1:8082');
		$t->reload();
	}

	is($load->finish(now => 1)->{failed}, 0, 'no request was lost');
	reload();
	is(answers(), '8081 8082', 'as in the file');
}

# A worker that dies takes nothing with it.
sub workers {
	act('add=&server=127.0.0.1:8083');
	act('remove=&server=127.0.0.1:8081');
	my $before = ids();

	$t->kill_worker() for 1 .. 2;
	is(ids(), $before, 'new workers know what was changed');
	is(answers(), '8082 8083', 'and balance by it');
	act('add=&server=127.0.0.1:8084');
	is(answers(), '8082 8083 8084', 'one more');
	is(scalar split(/, /, reload()), 3, 'a warning for each');
	is(answers(), '8081 8082', 'as in the file, again');
}
