# Sekisho. "make run" to see it work, "make check" to test it, "make help" for the rest.
#
# B is where everything goes; V selects the variant: empty is the product, "test" adds the shared test clock, "san" adds the
# address and undefined-behaviour sanitizers to that.
V      ?=
B      ?= build$(V:%=/%)
ifeq ($(origin CC),default)
CC = gcc
endif
PREFIX ?= /usr/local
UNITDIR ?= $(if $(filter /usr/local,$(PREFIX)),/etc/systemd/system,/usr/lib/systemd/system)

WARN     = -Wall -Wextra -Wshadow -Wconversion -Wno-missing-field-initializers -Werror
HARDEN   = -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIE
VARIANT  = $(if $(V),-DSEKISHO_TEST) \
	   $(if $(filter san,$(V)),-fsanitize=address$(comma)undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
OPTIMISE = $(if $(filter san,$(V)),-O1,-O2 -D_FORTIFY_SOURCE=2)
comma    = ,
CPPFLAGS = -D_GNU_SOURCE -I. -MMD -MP $(if $(wildcard /usr/bin/pkg-config),$(shell pkg-config --cflags lmdb jansson libxxhash 2>/dev/null))
CFLAGS   = -std=gnu11 -g $(OPTIMISE) $(WARN) $(HARDEN) $(VARIANT)
LDFLAGS  = -pie -Wl,-z,relro,-z,now -Wl,--as-needed $(filter -fsanitize%,$(VARIANT))

# Left to right: a folder includes only what stands left of it.
LAYERS   = core smtp auth ratelimit keys queue relay
LIBS     = $(patsubst %,$(B)/lib%.a,relay queue keys ratelimit auth smtp core)
LINK     = -Wl,--start-group $(LIBS) -Wl,--end-group \
	   -levent_core -levent_pthreads -lssl -lcrypto -llmdb -lxxhash -lyaml -lseccomp -lidn2 -lunistring -lpthread
PROGRAMS = sekishod sekisho-msa sekisho-auth sekisho-queue sekisho-relay sekisho-keys sekisho-admin sekishoctl

# The sources of each program that are not part of its folder's archive.
MAIN_sekishod      = $(wildcard sekishod/*.c)
MAIN_sekisho-msa   = $(wildcard msa/*.c)
MAIN_sekisho-auth  = auth/main.c
MAIN_sekisho-queue = queue/main.c
MAIN_sekisho-relay = relay/main.c
MAIN_sekisho-keys  = keys/main.c
MAIN_sekisho-admin = $(filter-out $(MAIN_sekishoctl),$(wildcard admin/*.c))
MAIN_sekishoctl    = admin/sekishoctl.c $(wildcard admin/ctl_*.c)
EXTRA_sekisho-auth  = -lsasl2 -lidn
EXTRA_sekisho-relay = -lunbound -lresolv
EXTRA_sekisho-admin = -ljansson
EXTRA_sekishoctl    = -ljansson

all: $(PROGRAMS:%=$(B)/%)

objects = $(patsubst %.c,$(B)/obj/%.o,$(1))

$(B)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  compile $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

define archive
$(B)/lib$(1).a: $(call objects,$(filter-out $(1)/main.c,$(wildcard $(1)/*.c)))
	@rm -f $$@
	@ar rcs $$@ $$^
endef
$(foreach d,$(LAYERS),$(eval $(call archive,$(d))))

define program
$(B)/$(1): $(call objects,$(MAIN_$(1))) $(LIBS)
	@echo "  link $$@"
	@$(CC) $(LDFLAGS) -o $$@ $(call objects,$(MAIN_$(1))) $(LINK) $(EXTRA_$(1))
endef
$(foreach p,$(PROGRAMS),$(eval $(call program,$(p))))

FUZZERS = $(filter-out replay,$(patsubst t/fuzz/%.c,%,$(wildcard t/fuzz/*.c)))
SESSION = $(filter-out msa/main.c msa/balancer.c,$(wildcard msa/*.c))
REQUEST = $(addprefix admin/,protocol.c process.c roles.c)
UNIT = $(patsubst t/unit/%.c,$(B)/unit/%.t,$(wildcard t/unit/*.c))
$(B)/unit/%.t: $(B)/obj/t/unit/%.o $(LIBS)
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LINK) -lcmocka -lsasl2 -lidn -lunbound -lresolv
$(B)/unit/replies.t: $(B)/obj/msa/replies.o
# The corpus of each fuzz harness, as an ordinary test.
REPLAY = $(FUZZERS:%=$(B)/unit/fuzz-%.t)
$(B)/unit/fuzz-%.t: $(B)/obj/t/fuzz/%.o $(B)/obj/t/fuzz/replay.o $(SESSION:%.c=$(B)/obj/%.o) $(LIBS)
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$(if $(filter %/session.o,$<),$^,$(filter-out $(B)/obj/msa/%,$^))) $(LINK) -lresolv -lsasl2 -lidn -ljansson
$(B)/unit/fuzz-request.t: $(REQUEST:%.c=$(B)/obj/%.o)
$(B)/unit/fuzz-logline.t: $(B)/obj/admin/logline.o
unit: $(UNIT) $(REPLAY) build/peers/usr/sbin/nsd
build/peers/usr/sbin/nsd:
	@sh t/packages.sh test

# What the whole-system tests bring along: the layers that record and that fail, the recovery a recording is replayed into, the load.
$(B)/%.so: t/durability/%.c Makefile
	@mkdir -p $(@D)
	@$(CC) -std=gnu11 -O2 -g -D_GNU_SOURCE $(WARN) -fPIC -shared -o $@ $<
$(B)/recover: $(B)/obj/t/durability/recover.o $(LIBS)
	@$(CC) $(LDFLAGS) -o $@ $< $(LINK)
$(B)/bench/%: t/bench/%.c t/bench/client.c t/bench/client.h Makefile
	@mkdir -p $(@D)
	@$(CC) -std=gnu11 -O2 -g -D_GNU_SOURCE -I. $(WARN) -o $@ $< t/bench/client.c -lssl -lcrypto -lpthread
$(B)/bench/parse $(B)/bench/fill: $(B)/bench/%: $(B)/obj/t/bench/%.o $(LIBS)
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) -o $@ $< $(LINK)
tools: $(B)/record.so $(B)/fault.so $(B)/recover $(B)/bench/fill

SASL = $(addprefix auth/,accounts.c cache.c grants.c identity.c mech.c mech_login.c name.c verify.c) $(addprefix core/,clock.c crypt.c log.c log_value.c random.c) \
	-lsasl2 -lidn -llmdb -lcrypto -lpthread
REQUEST_LIBS = auth/identity.c auth/name.c queue/id.c queue/proto.c queue/selector.c $(filter-out %/arena.c %/buf.c %/mem.c %/near.c %/text.c,$(wildcard core/*.c)) \
	-levent_core -levent_pthreads -lssl -lcrypto -lyaml -lseccomp -ljansson -lidn -lpthread
$(B)/fuzz/%: t/fuzz/%.c $(wildcard admin/*.c admin/*.h auth/*.c auth/*.h core/*.c core/*.h smtp/*.c smtp/*.h msa/*.c msa/*.h) Makefile
	@mkdir -p $(@D)
	clang -std=gnu11 -g -O1 -D_GNU_SOURCE -I. -fsanitize=fuzzer,address,undefined -o $@ $< $(if $(filter session,$*),$(SESSION) auth/identity.c auth/name.c core/log_value.c) \
		smtp/*.c core/arena.c core/buf.c core/mem.c core/near.c core/text.c -lidn2 -lunistring $(if $(filter conf sasl session,$*),core/conf*.c -lyaml) \
		$(if $(filter answer,$*),relay/answer.c -lresolv) $(if $(filter sasl,$*),$(SASL)) \
		$(if $(filter logline,$*),admin/logline.c core/log.c core/log_value.c core/clock.c -lpthread) $(if $(filter request,$*),$(REQUEST) $(REQUEST_LIBS))

# What people type. ----------------------------------------------------------------------------------------------

run: ## build, start everything on 127.0.0.1, send a message, show what happened
	@sh t/packages.sh build run
	@$(MAKE) --no-print-directory -j2 all
	@sh t/run.sh

check: ## install what tests need, build, run every test
	@sh t/packages.sh build run test
	@$(MAKE) --no-print-directory layers
	@$(MAKE) --no-print-directory -j2 all
	@$(MAKE) --no-print-directory -j2 V=test all unit tools
	@prove -e '' build/test/unit/ --ext .t
	@prove t/e2e

san: ## the unit tests and the whole-system tests under the address and undefined-behaviour sanitizers
	@sh t/packages.sh build run test
	@$(MAKE) --no-print-directory -j2 V=san all unit build/san/bench/fill
	@prove -e '' build/san/unit/ --ext .t
	@SEKISHO_BUILD=build/san prove t/e2e

torture: ## kills, faults and the ledger with their full counts, and another seed each time
	@sh t/packages.sh build run test
	@$(MAKE) --no-print-directory -j2 V=test all unit tools
	@export SEKISHO_STEPS=50000000 SEKISHO_KILLS=300 SEKISHO_FAULTS=1 SEKISHO_STORM=2000 SEKISHO_SEED=$${SEKISHO_SEED:-$$(date +%s)}; \
		prove -v -e '' build/test/unit/ledger.t && prove -v t/e2e/kill.t t/e2e/meters.t t/e2e/storm.t t/e2e/fault.t t/e2e/moves.t t/e2e/acts.t t/e2e/compact.t

fuzz: ## each parser fuzzed for FUZZ_SECONDS (60)
	@sh t/packages.sh build fuzz
	@$(MAKE) --no-print-directory $(FUZZERS:%=$(B)/fuzz/%)
	@for f in $(FUZZERS); do echo "--- $$f"; mkdir -p $(B)/fuzz/corpus/$$f; $(B)/fuzz/$$f $(B)/fuzz/corpus/$$f t/fuzz/corpus/$$f -seed=1 -max_len=4096 -max_total_time=$(or $(FUZZ_SECONDS),60) -print_final_stats=0 -verbosity=0 || exit 1; done

bench: bench-quick ## what bench-quick shows, what reading commands and content costs, what large uploads cost others, and what a million queued messages do
	@$(MAKE) --no-print-directory $(B)/bench/parse $(B)/bench/beside
	@$(B)/bench/parse
	@perl t/bench-beside.pl
	@$(MAKE) --no-print-directory bench-backlog

bench-backlog: ## what fresh mail gets with 20,000 and 1,000,000 messages queued to dead sites
	@sh t/packages.sh build run test
	@$(MAKE) --no-print-directory -j2 all $(B)/bench/fill $(B)/bench/flow
	@perl t/bench-backlog.pl

bench-quick: ## messages/s, latency and CPU per message of each process
	@sh t/packages.sh build run test
	@$(MAKE) --no-print-directory -j2 all $(B)/bench/load
	@perl t/bench-quick.pl

FOLDERS = core smtp auth ratelimit keys queue relay msa admin sekishod
lint: ## cppcheck, clang-tidy and the format of every source
	@sh t/packages.sh build lint
	@cppcheck -q -j2 --enable=warning,portability --std=c11 --error-exitcode=1 -D_GNU_SOURCE -DSEKISHO_TEST -I. --inline-suppr \
		--suppress=memleakOnRealloc:admin/ctl_ask.c --include=/usr/include/$$($(CC) -print-multiarch)/sys/queue.h $(FOLDERS)
	@ls $(FOLDERS:%=%/*.c) | xargs -P2 -n1 sh -c 'clang-tidy --quiet "$$0" -- -std=gnu11 $(filter -D% -I%,$(CPPFLAGS)) -DSEKISHO_TEST 2>/dev/null'
	@clang-format --dry-run -Werror $$(git ls-files '*.c' '*.h')

layers: ## prove that the folders include only what stands left of them
	@sh t/layers.sh

help:
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 20

install: all ## install programs, manual, sample configuration, systemd units, users and directories
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/etc/sekisho
	install $(filter-out $(B)/sekishoctl,$(PROGRAMS:%=$(B)/%)) $(DESTDIR)$(PREFIX)/sbin
	install $(B)/sekishoctl $(DESTDIR)$(PREFIX)/bin
	for s in 5 7 8; do install -d $(DESTDIR)$(PREFIX)/share/man/man$$s && install -m 644 man/*.$$s $(DESTDIR)$(PREFIX)/share/man/man$$s || exit 1; done
	install -d $(DESTDIR)$(UNITDIR) $(DESTDIR)/usr/lib/sysusers.d $(DESTDIR)/usr/lib/tmpfiles.d
	for u in etc/systemd/*; do sed 's|@sbindir@|$(PREFIX)/sbin|' $$u > $(DESTDIR)$(UNITDIR)/$${u##*/} && chmod 644 $(DESTDIR)$(UNITDIR)/$${u##*/} || exit 1; done
	install -m 644 etc/sysusers.d/sekisho.conf $(DESTDIR)/usr/lib/sysusers.d
	install -m 644 etc/tmpfiles.d/sekisho.conf $(DESTDIR)/usr/lib/tmpfiles.d
	test -e $(DESTDIR)/etc/sekisho/sekisho.yaml || install -m 644 etc/sekisho.yaml $(DESTDIR)/etc/sekisho

clean: ## remove what was built
	rm -rf build

.PHONY: all unit tools run check san torture fuzz bench bench-quick bench-backlog lint layers help install clean
.SECONDARY:
-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
